"""What the benchmark scripts share. A module imports only from those before it:

cases, zoo, inputs, models, modes, stats, measure, machine, worker, journal, sweep, tables, plots, cli.
"""
