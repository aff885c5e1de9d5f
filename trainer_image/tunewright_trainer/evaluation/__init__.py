"""What base and tuned model can do: figures, answers, a judge, what was forgotten."""
