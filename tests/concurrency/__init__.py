"""Many processes on one workspace: ``deeds`` is what they do, ``watch`` what must hold, ``stress`` lets them."""
