"""What the benchmark scripts share. A module imports only from those before it:

cases, zoo, modes, stats, machine, run log; inputs, models, counting; runtimes, measure, messages, worker, server;
estimates, health, schedule, sweep; tables, markdown, pages, compare, plots; reports, settings, cli,
decoder_benchmark.
"""
