#!/usr/bin/env bash
# What the pod of job.yaml does: fetch what others have made of $TARGET, make the rest, and hand it on over S3 and git.
set -euo pipefail
join() {  # what cannot be joined leaves nothing behind that the next pod would meet
  git merge -q --no-edit "$1" || { git merge --abort; exit 1; }
}
# A volume that was used before holds the project as it was then.
git fetch -q origin
join origin/HEAD
# An image that holds the environment already says so by VIRTUAL_ENV.
if [ -z "${VIRTUAL_ENV:-}" ]; then
  make setup
  source .venv/bin/activate
fi
# A replaced pod was killed with its Snakemake, whose lock is on the volume: nothing else works there.
rm -rf .snakemake/locks
dvc remote modify --local storage url "$STORAGE"
if [ -n "${ENDPOINT:-}" ]; then
  dvc remote modify --local storage endpointurl "$ENDPOINT"
fi
if git fetch -q origin "$BRANCH" 2>/dev/null && ! git merge-base --is-ancestor FETCH_HEAD HEAD; then
  join FETCH_HEAD
fi
# Whether results may go where they are to go is found out now, and not after days.
python workflow/remote.py reach
git push -q --dry-run origin "HEAD:refs/heads/$BRANCH"
if [ -f dvc.lock ]; then
  # What is not in the storage is made again.
  dvc pull --quiet --allow-missing || true
fi
snakemake --cores all "$TARGET" &
# A pod that is to end has half a minute: Snakemake begins nothing more, and what it trains is saved.
trap 'kill -TERM $! && pkill -TERM -s 0 -f "bin/ddgm train" || true' TERM
wait $! || { wait $!; exit 1; }
for made in dvc.lock results; do
  [ ! -e $made ] || git add $made
done
git diff --cached --quiet || git commit -q -m "Results of $TARGET"
dvc push
git push -q origin "HEAD:refs/heads/$BRANCH"
