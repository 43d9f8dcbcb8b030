"""What two studies must have in common when they were trained alike."""

from train import records


def content(directory):
    """The records of all runs of a study by name, without what the clock says."""
    found = {}
    for path in records.find_runs(directory):
        run = records.read_run(path)
        found[path.name] = (
            run.config,
            records.without_clock(run.metrics),
            run.evals,
            run.status["state"],
        )
    return found


def run_table(directory):
    """The report's table of runs as text, without what the clock says."""
    from eval.data.study import read_study

    return (
        read_study(directory)
        .runs.drop(columns=[*(records.CLOCK - {"memory_bytes"}), "study"])
        .to_csv(index=False)
    )
