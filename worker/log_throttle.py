"""Log the same message at most once a minute, however many processes have it to say."""

import time
from multiprocessing import Value

#: Seconds between two log lines with the same message.
LOG_INTERVAL = 60.0


class LogThrottle:
    """Lets a message through once a minute, for this process and all children that it forks afterwards."""

    def __init__(self) -> None:
        # Without a lock: a child that is killed while it holds one would block the others for ever.
        self._last = Value("d", -LOG_INTERVAL, lock=False)

    def allow(self) -> bool:
        """Whether the message may be logged now. The caller then logs it."""
        now = time.monotonic()
        if now - self._last.value < LOG_INTERVAL:
            return False
        self._last.value = now
        return True

    def reset(self) -> None:
        """The problem is over: the next message is logged at once."""
        self._last.value = -LOG_INTERVAL
