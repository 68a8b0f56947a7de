"""RadCliQ's parts from the published weights: RadGraph, CheXbert, BERTScore."""
