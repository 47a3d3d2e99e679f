//! Ensembles, faults and independent measurements.
