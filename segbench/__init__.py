"""What the benchmark scripts share. Imports run one way: cases, zoo, models, modes, measure, worker, journal, sweep, tables."""
