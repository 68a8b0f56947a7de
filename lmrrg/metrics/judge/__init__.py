"""A language model as judge of reports: an optional part of the reward (ours).

``answer`` says what the judge is asked and what its answer is worth; ``client`` asks an endpoint
and remembers the answers.
"""
