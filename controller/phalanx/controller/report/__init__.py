"""Pages that show results and runs: self-contained files to look at, print, send and keep."""
