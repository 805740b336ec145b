"""The rules of jobs, reports and repeated requests, as pure functions."""
