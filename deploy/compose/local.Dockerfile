# Any image that is made of this machine's programs: `cargo xtask compose images` lays
# out root/ and own/. It has no shell, no package manager and nobody's password.
FROM scratch
COPY root/ /
COPY --chown=65532:65532 own/ /
ENV PATH=/usr/local/sbin:/usr/local/bin:/bin
USER 65532:65532
