from fastapi_cacheinval.core.log_types import LogEntry, Reset, Term
from fastapi_cacheinval.core.replica import Replica

term = Term(1, "nonce-of-the-term")
kettle, lamp = ("product:42",), ("product:43",)


def purge(number: int, tags: tuple[str, ...], *, soft: bool = False) -> LogEntry:
    return LogEntry(term, number, f"nonce-of-{number}", tags, soft, at=0.0)


replica = Replica(staleness_bound=2.0)
replica.apply_reply(Reset(term, 0, ""), sent=0.0, now=0.0)  # read the log up to its end: the lease runs until 2.0

stamp = replica.stamp(now=0.1)  # a request enters: as_of 0
print("before:", replica.stale_from(stamp, kettle, now=0.2))
replica.apply_message(purge(1, kettle), now=0.3)  # a purge, while the handler runs
print("purged:", replica.stale_from(stamp, kettle, now=0.4))
print("other tag:", replica.stale_from(stamp, lamp, now=0.4))

replica.apply_message(purge(2, lamp, soft=True), now=0.5)
print("soft:", replica.stale_from(stamp, lamp, now=0.6))

print("a gap:", replica.apply_message(purge(4, kettle), now=0.7))
print("an old line again:", replica.apply_message(purge(1, kettle), now=0.8))

newer = replica.stamp(now=0.9)
print("newer fill:", replica.stale_from(newer, kettle, now=1.0))
fence = replica.fence(kettle)  # a purge that has no number yet
print("fenced:", replica.stale_from(newer, kettle, now=1.1))
replica.lift(fence)
print("lease over:", replica.stale_from(newer, kettle, now=3.0))
