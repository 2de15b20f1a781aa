"""``python -m worker.cli``, for processes that dermq starts itself."""

from worker.cli import main

main()
