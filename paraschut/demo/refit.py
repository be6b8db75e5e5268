"""The job of the third group: train the best model on all training images, and test it on unseen ones."""

from __future__ import annotations

from pathlib import Path

import paraschut as psu
from paraschut.demo import figures, sweep


def main() -> None:
    """Read the best parameters from the ranking job, and keep the accuracy and the confusion matrix."""
    job = psu.get_job_info(SetID=True)
    ranked = psu.get_job_info(job["BatchID"], job["ranked_by"])
    best = ranked["best"]
    job["tested"] = sweep.test_best(best["model"], best["params"], sweep.load())
    job["accuracy"] = job["tested"]["accuracy"]

    job["figure"] = str(Path(ranked["table"]).with_name("confusion.png"))
    title = sweep.label(best["model"], best["params"])
    figures.save_figure(figures.confusion_figure(job["tested"], title), Path(job["figure"]))
    psu.set_complete(JobInfo=job)


if __name__ == "__main__":
    main()
