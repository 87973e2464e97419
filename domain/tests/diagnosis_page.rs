//! docs/diagnosis.md has one section for each code, made from the catalogue.

#![expect(clippy::expect_used, reason = "a page that cannot be read or written should stop the test")]

use std::fmt::Write as _;
use std::path::Path;

use berth_domain::diagnosis::{Code, Exit, Retry};

#[test]
fn the_page_explains_every_code_as_the_programs_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/diagnosis.md");
    let wanted = page();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &wanted).expect("the page is written");
    }
    let found = std::fs::read_to_string(&path).expect("docs/diagnosis.md");
    assert!(found == wanted, "docs/diagnosis.md is not current: UPDATE_GOLDEN=1 cargo test -p berth-domain");
}

fn page() -> String {
    let mut page = String::from(
        "# Why a join waits or stops\n\n\
         Agent and server say why by the same code, with the values that prove it and the\n\
         command that mends it: on the agent's terminal, in `berth-server joins explain`, and\n\
         as `berth.code` in the trace. A code is never renamed. `{name}` stands for a value; a\n\
         clause in brackets is shown to operators only.\n\n\
         A join that waits goes on by itself once the mend is done. Exit statuses: 1 other,\n\
         2 preflight, 3 usage, 4 token or identity refused, 5 not allowed, 6 server out of\n\
         reach or busy (it can be tried again), 7 registered and not Ready in time,\n\
         8 interrupted.\n",
    );
    for code in Code::ALL {
        let retry = match code.usual_retry() {
            Retry::Never => "waits: no".to_owned(),
            Retry::After(pause) => format!("waits: yes, looks again after {} s", pause.as_secs()),
        };
        write!(
            page,
            "\n## {code}\n\n{}\n\n- says: {}\n- mend: {}\n- {retry}\n- exit status: {}\n",
            code.meaning().trim(),
            code.cause_template(),
            code.mend_template(),
            exit(code.exit()),
        )
        .expect("a string takes everything");
    }
    page
}

const fn exit(exit: Exit) -> u8 {
    exit as u8
}
