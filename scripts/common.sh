# Shared functions of the launch scripts, which source this file.
# shellcheck shell=bash

dry_run=''

# Exits with a usage error.
fail() {
  echo "${0##*/}: $1; see scripts/${0##*/} --help" >&2
  exit 2
}

# Handles the flags that all scripts share.
shared_flag() {
  case $1 in
    --dry_run) dry_run=yes ;;
    -h | --help)
      # The comment at the head of the script.
      awk 'NR > 2 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
      exit
      ;;
    *) fail "there is no flag '$1'" ;;
  esac
}

# Checks the job and its flags, the arguments after --.
check_job() {
  [ $# -gt 0 ] || fail 'the job is missing: write -- JOB and its flags'
  [[ $1 != -* ]] || fail "'$1' is not a job: write -- JOB"
}

# Prints words as one line, quoted for a shell.
shell_words() {
  local word line=''
  for word; do
    case $word in
      '' | *[!A-Za-z0-9_./:=,@%+-]*)
        word="'$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'"
        ;;
    esac
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# Runs a command; in a dry run prints it.
run() {
  if [ -n "$dry_run" ]; then shell_words "$@"; else "$@"; fi
}

# Packs the files that git tracks, as they are now, into the archive $1.
#
# `git stash create` makes a commit of uncommitted changes, without changing
# anything else; without changes it prints nothing. It fails for a file with a
# new timestamp only, unless `git status` has refreshed the index.
pack_repository() {
  local commit
  git status --porcelain > /dev/null
  commit=$(git stash create)
  run mkdir -p "${1%/*}"
  run git archive --format=tar.gz --output="$1" "${commit:-HEAD}"
}
