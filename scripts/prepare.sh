# Sourced by the other scripts: a virtual environment with sparktasks in it, and a Java that Spark can use.
# prepare EXTRAS installs this checkout with these extras; the environment is .venv, or where SPARKTASKS_VENV says.

venv=${SPARKTASKS_VENV:-.venv}

java_is_new_enough() {
  local version
  version=$("${JAVA_HOME:+$JAVA_HOME/bin/}java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1) || return 1
  [ -n "$version" ] && [ "$version" -ge 17 ]
}

find_java() {
  java_is_new_enough && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "No Java 17 or newer found; running: apt-get install -y openjdk-17-jre-headless" >&2
    apt-get update -qq && apt-get install -y -qq openjdk-17-jre-headless >/dev/null && java_is_new_enough && return
  fi
  echo "Spark needs Java 17 or newer. Install it and run this again, for example: sudo apt-get install -y openjdk-17-jre-headless" >&2
  exit 1
}

prepare() {
  find_java
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$1]"
}
