"""How many replicas of the log's server have to acknowledge what it says, so that no second primary contradicts it.

The rule: a primary and those that acknowledge it are a majority of all servers. Any two majorities have a server in
common. That server follows one primary at a time and does not go back, so what the earlier primary had acknowledged
came before what the later one has.
"""

from __future__ import annotations

__all__ = ["doubt_about", "needed"]


def needed(servers: int) -> int:
    """The least `confirm_replicas` for so many servers, the primary included."""
    return servers // 2


def doubt_about(confirm_replicas: int, connected: int) -> str | None:
    """What is wrong with the setting where so many replicas follow the server, and what to do; None for nothing."""
    if connected < confirm_replicas:
        return (
            f"confirm_replicas={confirm_replicas}, but {connected} replica(s) follow the server of the purge log: no "
            f"lease is taken, requests are forwarded, and purges are queued. Have {confirm_replicas} or more servers "
            f"replicate it, or set confirm_replicas={needed(connected + 1)}"
        )
    servers = connected + 1
    if confirm_replicas < needed(servers):
        return (
            f"confirm_replicas={confirm_replicas} is too few for {servers} servers: two primaries could each have "
            f"{confirm_replicas} replica(s), and staleness_bound would not hold. Set confirm_replicas={needed(servers)}"
        )
    return None
