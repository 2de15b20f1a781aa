"""One outage is one log line a minute, however often and by however many processes it is met."""

import mmap
import struct
import time

#: Seconds between two log lines about the same outage.
COMPLAIN_EVERY = 60.0


class Complaint:
    """Says the same thing at most once a minute, for a process and all the children that it forks after."""

    def __init__(self) -> None:
        # Shared by the fork: eight worker processes that miss one database are one complaint.
        self._last = mmap.mmap(-1, 8)
        struct.pack_into("d", self._last, 0, -COMPLAIN_EVERY)

    def due(self) -> bool:
        """Whether it is time to say it again; the caller then does."""
        now = time.monotonic()
        if now - struct.unpack_from("d", self._last)[0] < COMPLAIN_EVERY:
            return False
        struct.pack_into("d", self._last, 0, now)
        return True

    def withdraw(self) -> None:
        """It is over: the next outage is said at once."""
        struct.pack_into("d", self._last, 0, -COMPLAIN_EVERY)
