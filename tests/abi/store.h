/* The part of abi.c that is about xenstore. */

static void store(void)
{
    SIZE(xsd_sockmsg);
    FIELD(xsd_sockmsg, type);
    FIELD(xsd_sockmsg, req_id);
    FIELD(xsd_sockmsg, tx_id);
    FIELD(xsd_sockmsg, len);
    NUMBER(XENSTORE_PAYLOAD_MAX);
    NUMBER(XS_DIRECTORY);
    NUMBER(XS_READ);
    NUMBER(XS_WATCH);
    NUMBER(XS_UNWATCH);
    NUMBER(XS_TRANSACTION_START);
    NUMBER(XS_TRANSACTION_END);
    NUMBER(XS_WRITE);
    NUMBER(XS_RM);
    NUMBER(XS_DIRECTORY_PART);
    NUMBER(XS_WATCH_EVENT);
    NUMBER(XS_ERROR);
    FIELD(xenstore_domain_interface, req);
    FIELD(xenstore_domain_interface, rsp);
    FIELD(xenstore_domain_interface, req_cons);
    FIELD(xenstore_domain_interface, req_prod);
    FIELD(xenstore_domain_interface, rsp_cons);
    FIELD(xenstore_domain_interface, rsp_prod);
    NUMBER(XENSTORE_RING_SIZE);
}
