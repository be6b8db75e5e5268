"""The job of the second group: collect the scores, and find the best model."""

from __future__ import annotations

from pathlib import Path

import paraschut as psu
from paraschut.demo import figures, sweep
from paraschut.errors import JobError


def main() -> None:
    """Write the table and the figure, mark the training jobs ``collected``, and keep the best parameters."""
    job = psu.get_job_info(SetID=True)
    batch_id = job["BatchID"]
    found = psu.get_queue(Filter=f'BatchID == {batch_id} AND step == "train"', Verbose=False)
    trained = found.get(batch_id, [])
    expected = len(psu.load_data(job))
    if len(trained) != expected:
        raise JobError(
            f"Batch {batch_id} was prepared with {expected} models, and {len(trained)} are in the index: "
            "prepare the demo again."
        )
    rows = sweep.rank(trained)

    folder = Path(job["data"]).parent
    job["table"] = str(folder / "ranking.csv")
    job["figure"] = str(folder / "ranking.png")
    figures.save_table(rows, Path(job["table"]))
    figures.save_figure(figures.ranking_figure(rows), Path(job["figure"]))

    # Only now that their results are safe elsewhere; without Unless={} completed jobs would be left alone.
    collected = [row["JobIndex"] for row in rows]
    psu.set_job_field(batch_id, collected, Fields={"state": "collected"}, Unless={})
    job["ranking"] = rows
    job["best"] = {key: rows[0][key] for key in ("model", "params")}
    psu.set_complete(JobInfo=job)
    psu.submit_one_batch(batch_id, Verbose=False)


if __name__ == "__main__":
    main()
