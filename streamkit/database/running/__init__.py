"""One query while it runs: threads, budgets, handing over."""
