"""Jobs that are scored in some hours of the day only, and rest in the others."""

import re
from dataclasses import dataclass
from datetime import time

from sqlalchemy import Connection, select, update

from db.job_control import clear_hints
from db.jobs import ACTIVE
from db.models import Job

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Hours:
    """A span of the day. One that ends before it begins goes over midnight."""

    begin: time
    end: time

    @classmethod
    def parse(cls, text: str) -> "Hours":
        """Read ``20:00-06:00``.

        Raises:
            ValueError: it is no such span, or an empty one.
        """
        found = _HOURS.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no span of hours. Write it as 20:00-06:00, with two digits each.")
        first, second, third, fourth = map(int, found.groups())
        begin, end = time(first, second), time(third, fourth)
        if begin == end:
            raise ValueError(f"{text} begins and ends at the same time. Leave the hours out to score at any time.")
        return cls(begin=begin, end=end)

    def include(self, now: time) -> bool:
        """Whether a time of the day is inside."""
        if self.begin < self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end


def rest_and_wake(connection: Connection, now: time) -> list[int]:
    """Let the open jobs with hours rest outside of them, and wake them inside.

    Args:
        connection: to the database.
        now: the time of the day at this site.

    Returns:
        The jobs that were changed.
    """
    rows = connection.execute(
        select(Job.id, Job.hours, Job.resting).where(Job.status.in_(ACTIVE), Job.hours.is_not(None))
    ).all()
    changed = []
    for job_id, hours, resting in rows:
        rests = not Hours.parse(str(hours)).include(now)
        if rests != resting:
            connection.execute(update(Job).where(Job.id == job_id).values(resting=rests))
            if not rests:
                # The hints that came meanwhile were in vain.
                clear_hints(connection, job_id)
            changed.append(job_id)
    return changed
