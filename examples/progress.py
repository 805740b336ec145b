"""A loop as a job: `streamkit watch-job` shows its bar, from anywhere."""

import time

import streamkit

for _file in streamkit.track(range(20), description="import", job_id="example-import"):
    time.sleep(0.01)  # the work
print("done")
