"""A job of the first group: cross-validate the one model that this job is about."""

from __future__ import annotations

import paraschut as psu
from paraschut.demo import sweep


def main() -> None:
    """Score the model in ``job['params']``, and keep the score in the job's own dict."""
    job = psu.get_job_info(SetID=True)
    digits = sweep.load()
    job["score"] = sweep.evaluate(job["model"], job["params"], digits.x_train, digits.y_train)
    psu.set_complete(JobInfo=job)
    psu.submit_one_batch(job["BatchID"], Verbose=False)


if __name__ == "__main__":
    main()
