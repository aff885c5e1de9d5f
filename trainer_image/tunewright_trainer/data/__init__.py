"""From the user's JSON Lines file to token sequences. Nothing here imports torch."""
