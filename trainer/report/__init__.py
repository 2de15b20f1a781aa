"""The report of an evaluation: ``report.json`` with every figure, and ``report.html`` to read and to print."""

from trainer.report.write import write_report

__all__ = ["write_report"]
