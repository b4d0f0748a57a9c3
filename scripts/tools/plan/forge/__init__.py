"""A plan on a forge: comments of pull requests, issues about drift, artefacts of runs.

- `client`: HTTP, with retries that are bounded in time. `errors`: what goes wrong, with the fix.
- `github`, `gitlab`: the two forges, behind the protocols of `forge`.
- `marker`, `settle`, `comment`: one comment per stack and pull request.
- `cli`, `commands`: the subcommands of `./scripts/plan`. `check`: reviewed against now.

A token comes from the environment alone. Plans are artefacts of others, so they are data.
"""
