"""Crash safety, tested by crashing: commands that are killed, interrupted or refused by the disk at chosen moments.

``disk`` counts the file operations of a process and breaks one of them, ``server`` runs command lines in children that
it forks, ``cases`` are the commands, ``checks`` says what must hold afterwards, and ``trials`` puts them together.
"""
