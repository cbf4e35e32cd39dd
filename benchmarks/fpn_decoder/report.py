"""Tables and pictures of encoders with one decoder."""

from functools import partial

from segbench.analysis import markdown, pages, plots, rankings, tables
from segbench.analysis.reports import Report


def report(decoder: str) -> Report:
    def with_decoder(results: tables.Results):
        return results.rows[results.rows.decoder == decoder]

    return Report(
        csvs={
            "benchmark_results_all.csv": lambda results: results.rows,
            "benchmark_results.csv": lambda results: rankings.fastest(with_decoder(results)),
        },
        pictures={"benchmark_plot.png": lambda results: plots.encoders(with_decoder(results), results.dates())},
        show=partial(markdown.terminal, decoder=decoder),
        pages=(partial(pages.ranking, decoder=decoder), partial(pages.every_mode, decoder=decoder)),
        answer=partial(markdown.answer, decoders=(decoder,)),
    )


REPORT = report("fpn")
