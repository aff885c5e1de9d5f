"""The server image: checks an artifact, serves it with vLLM and tells the truth about it.

    config -> verify the digest -> start vLLM -> our access rules are in force -> a real completion -> its speed
           -> ready -> drain on SIGTERM

- `config`, `failures`, `termination`: what the operator gave us and what we tell it when we stop.
- `arguments`, `causes`, `diagnosis`, `exposition`, `performance`, `policy`, `readiness`, `settings`: pure.
- `engine`, `client`, `monitor`, `drain`, `health`, `machine`: one kind of I/O each.
- `supervisor`: puts them together; `__main__` is the command.
- `middleware`: the only module that runs inside vLLM's process.
"""
