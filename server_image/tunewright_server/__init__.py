"""The server image: checks an artifact, serves it with vLLM and tells the truth about it.

    config -> verify the digest -> start vLLM -> ready after a real completion -> drain on SIGTERM

- `config`, `failures`, `termination`: what the operator gave us and what we tell it when we stop.
- `arguments`, `diagnosis`, `readiness`, `settings`: pure.
- `engine`, `client`, `monitor`, `drain`, `health`, `machine`: one kind of I/O each.
- `supervisor`: puts them together; `__main__` is the command.
"""
