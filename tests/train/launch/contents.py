"""What two studies must have in common when they were trained alike."""

from train import records

CLOCK = {"tokens_per_second", "steps_per_second", "mfu", "memory_bytes"}  # depend on the machine and the moment


def content(directory):
    """The records of all runs of a study by name, without what the clock says."""
    found = {}
    for path in records.find_runs(directory):
        run = records.read_run(path)
        metrics = [{key: value for key, value in row.items() if key not in CLOCK} for row in run.metrics]
        found[path.name] = (run.config, metrics, run.evals, run.status["state"])
    return found


def run_table(directory):
    """The report's table of runs as text, without what the clock says."""
    from eval.store import read_study

    return read_study(directory).runs.drop(columns=[*(CLOCK - {"memory_bytes"}), "study"]).to_csv(index=False)
