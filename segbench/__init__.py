"""What the benchmark scripts share. Imports run one way, a package or module takes from those before it:

problem, zoo, modes, machine; cases, records, run_log; inputs, models, kernels, counting, runtimes; analysis (from runs
to estimates, tables, pictures); measure (from cases to runs); settings, session, cli.
"""
