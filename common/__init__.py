"""The library. Imports run down its rooms; nothing here knows click, a terminal or the programs.

acting    learning                                                they never meet
transport   blocks   envs   networks   loss   records   local     none imports another of these
run   server
errors   files   vtrace
"""
