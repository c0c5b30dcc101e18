# What the launch scripts share: each of them sources this file.
# shellcheck shell=bash

dry_run=''

# Ends the script, which was not called as it should be.
fail() {
  echo "${0##*/}: $1; see scripts/${0##*/} --help" >&2
  exit 2
}

# The flags that every script has.
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

# Whether what follows -- can be a job and its flags.
check_job() {
  local word
  [ $# -gt 0 ] || fail 'the job is missing: write -- JOB and its flags'
  [[ $1 != -* ]] || fail "'$1' stands where the job should: write -- JOB"
  for word; do
    # lift would take it for the name of a local folder.
    [[ $word != *gs://* ]] || fail "'$word': lift reads and writes files, \
not buckets; name a folder that all hosts share"
  done
}

# Prints words as one line that a shell reads as the same words.
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
# `git stash create` makes a commit of changes that are not committed and leaves
# everything else alone; where there are none it prints nothing. A file that has
# only been touched makes it fail, unless git has looked at it before.
pack_repository() {
  local commit
  git status --porcelain > /dev/null
  commit=$(git stash create)
  run mkdir -p "${1%/*}"
  run git archive --format=tar.gz --output="$1" "${commit:-HEAD}"
}
