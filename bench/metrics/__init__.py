"""Pure measures: attribution, capacity, intervals, Fréchet and kernel distances. They know no scheme."""
