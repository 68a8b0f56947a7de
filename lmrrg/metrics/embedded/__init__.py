"""Score reports as RadCliQ does, by rules: no model and no download.

How a pair of reports becomes the parts of RadCliQ, and which module does it:

1. **Sentences** (``sentences``). A report is split into lower-case sentences. Each word gets a
   class (anatomy, location, observation, device, modifier, state, or none; ``lexicon``) and an
   assertion: present, absent or uncertain. Cues such as "no" or "may represent" set the assertion
   of the words in their *scope*.
2. **Graph** (``graph``, ``relations``, ``salience``). The words with a class are the entities of
   a graph in the RadGraph schema; their order in the sentence gives the relations. ``salience``
   estimates how likely RadGraph's model would mark each entity.
3. **Claims** (``claims``, ``claim_lexicon``, ``unnamed``). One for every mention of a finding, with
   assertion, side, zone, severity, course, size and place, weighted by what it means to a reader;
   and what a sentence calls abnormal in words that no lexicon knows.
4. **Labels** (``labeler``). CheXbert's 14 classes; ``claims`` uses its reading of heart and
   mediastinum.
5. **Analysis** (``analysis``, ``batch_cache``). All of this of one report, read once and cached.
6. **Parts** (``comparison``, ``claim_agreement``, ``backend``). Two analyses give RG (F1 of the
   graphs), the stand-in for BERTScore (agreement of claims, overlap of words) and the stand-in
   for CheXbert (cosine of vectors of findings).

``finding_tokens`` stands apart: it tells training which tokens of a report carry findings.

Vocabulary, phrases and weights are YAML files in ``lexicons/``. After any change that can move a
score or a label, raise the version in ``backend``.
"""
