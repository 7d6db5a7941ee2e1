use super::*;

#[test]
fn methods_that_nobody_serves_get_gos_texts() {
    let check = |method: &str, expected: &str| assert_eq!(unknown_method(&["Graph"], method), expected);
    check("Graph.Nope", "rpc: can't find method Graph.Nope");
    check("NoSuch.Thing", "rpc: can't find service NoSuch.Thing");
    check("Graph.A.B", "rpc: can't find service Graph.A.B");
    check("Graph", "rpc: service/method request ill-formed: Graph");
    check("", "rpc: service/method request ill-formed: ");
}
