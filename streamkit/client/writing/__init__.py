"""Writers, jobs and what they send."""
