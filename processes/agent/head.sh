#!/bin/sh
# Installs fleethub's agent {version} on this server, or brings it up to date:
#   sh agent --code CODE          (sh agent --help tells the rest)
# Begins only once it is here as a whole: all of it is one function, called in the last line.
set -eu
fleethub_agent() {{
  for python in ${{PYTHON:+"$PYTHON"}} python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 \
    /usr/libexec/platform-python /run/current-system/sw/bin/python3 none; do
    "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1 && break
  done
  if [ "$python" = none ]; then
    echo "fleethub agent: Python 3.9 or newer is needed, and none is on the PATH; install it (apt install python3, dnf install python3), or name it: PYTHON=/path/to/python3" >&2
    return 1
  fi
  "$python" -I - "$@" <<'END_OF_FLEETHUB_AGENT'
{program}
END_OF_FLEETHUB_AGENT
}}
fleethub_agent "$@"
