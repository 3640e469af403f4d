"""From what a case leaves behind to rows of perf.csv and a status."""
