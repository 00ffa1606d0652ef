"""How registered metrics are measured: statistics, a second look at the rows, plans, streams, checks."""
