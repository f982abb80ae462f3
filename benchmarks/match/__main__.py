"""`python -m benchmarks.match`; the work is in measuring.py, which its child processes import by name."""

from benchmarks.match.measuring import main

main()
