"""Tables of several runs: plan, run, write."""
