"""Find what no radiologist would write: reports that contradict or repeat themselves (ours).

A report that says two things of one finding agrees with more references than an honest one, so a
policy that is trained on agreement learns to do it. :mod:`~lmrrg.metrics.coherence.find` is the way
in; ``statements`` is what it reads from a report, ``rules`` what may be wrong, ``fault`` what it
returns. What counts as a fault was set so that radiologists' own reports have next to none; the
words are in ``embedded/lexicons/coherence.yaml``.
"""
