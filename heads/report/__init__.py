"""``heads report``: what a run or a sweep found, as one page, or its table for a paper.

Read in this order: ``content`` (what is shown), ``collect`` (where it is read), ``tables``, ``figures``, ``page``.
Nothing here imports torch.
"""
