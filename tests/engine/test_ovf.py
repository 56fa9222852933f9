# SPDX-License-Identifier: GPL-3.0-or-later
"""Editing of OVF documents, friendly and hostile."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from overkeep.engine.ovf import BadOvf
from overkeep.engine.ovf import of_new_vm as edit
from overkeep.model import markup

OVF = """<?xml version='1.0' encoding='UTF-8'?>
<ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1/"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ovf:version="4.4.0.0">
 <References><File ovf:href="d1/i1" ovf:id="i1" ovf:size="1"/><Nic ovf:id="nic1"/></References>
 <NetworkSection><Info>List of networks</Info><Network ovf:name="Network 1"/></NetworkSection>
 <Section xsi:type="ovf:DiskSection_Type"><Info>List of Virtual Disks</Info>
  <Disk ovf:diskId="i1" ovf:size="10" ovf:disk-alias="a &amp; b"/></Section>
 <Content ovf:id="out" xsi:type="ovf:VirtualSystem_Type">
  <Name>web &amp; more</Name><LeaseDomainId>s1</LeaseDomainId>
  <Section ovf:id="v1" xsi:type="ovf:OperatingSystemSection_Type"><Info>Guest</Info></Section>
  <Section xsi:type="ovf:VirtualHardwareSection_Type">
   <Item><rasd:Caption>2 virtual cpu</rasd:Caption><rasd:ResourceType>3</rasd:ResourceType></Item>
   <Item><rasd:InstanceId>i1</rasd:InstanceId><rasd:ResourceType>17</rasd:ResourceType><Type>disk</Type></Item>
   <Item><rasd:InstanceId>n1</rasd:InstanceId><rasd:ResourceType>10</rasd:ResourceType><Type>interface</Type></Item>
   <Item><rasd:ResourceType>20</rasd:ResourceType><Type>video</Type></Item>
   <Item><rasd:ResourceType>0</rasd:ResourceType><Type>rng</Type></Item>
  </Section>
  <Section xsi:type="ovf:SnapshotsSection_Type"><Snapshot ovf:id="x"><Description>Active VM</Description></Snapshot>
  </Section>
 </Content>
</ovf:Envelope>"""


def of_new_vm(document: str, *, storage_domain_ids: Collection[str]) -> str:
    return edit(document, description="job 1", storage_domain_ids=storage_domain_ids)


def tags(document: str) -> list[str]:
    return [element.tag for element in markup.parse(document).iter()]


def test_disks_nics_and_snapshots_go_and_the_rest_stays() -> None:
    made = of_new_vm(OVF, storage_domain_ids={"s1"})
    root = markup.parse(made)
    kinds = [element.text for element in root.iter("rasd:ResourceType")]
    assert kinds == ["3", "20", "0"]
    assert not {"File", "Disk", "Snapshot"} & set(tags(made))
    assert markup.text(root, "Content", "Name") == "web & more"
    assert markup.text(root, "Content", "LeaseDomainId") == "s1"
    assert [
        markup.attribute(s, "type") for s in markup.children(next(markup.children(root, "Content")), "Section")
    ] == [
        "ovf:OperatingSystemSection_Type",
        "ovf:VirtualHardwareSection_Type",
    ]


def test_prefixes_stay_as_they_are() -> None:
    """Values of attributes use them: `xsi:type="ovf:DiskSection_Type"`."""
    made = of_new_vm(OVF, storage_domain_ids=())
    assert 'xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1/"' in made
    assert 'xsi:type="ovf:DiskSection_Type"' in made


def test_a_lease_on_an_unknown_domain_goes() -> None:
    assert "LeaseDomainId" not in of_new_vm(OVF, storage_domain_ids={"s2"})


def test_a_description_is_exchanged() -> None:
    described = OVF.replace("<LeaseDomainId>", "<Description>mine</Description><LeaseDomainId>")
    made = of_new_vm(described, storage_domain_ids=())
    assert "mine" not in made
    assert made.count("<Description>") == 1


def test_editing_twice_is_editing_once() -> None:
    once = of_new_vm(OVF, storage_domain_ids={"s1"})
    assert of_new_vm(once, storage_domain_ids={"s1"}) == once


@pytest.mark.parametrize(
    "hidden",
    [
        '<x:Item xmlns:x="urn:x"><x:ResourceType> 17 </x:ResourceType><HostResource>other</HostResource></x:Item>',
        "<Item><ResourceType>0</ResourceType><Type>disk</Type></Item>",
        '<StorageItem xmlns="urn:y"><ResourceType>17</ResourceType></StorageItem>',
        '<Section><y:Disk xmlns:y="urn:z" diskId="other"/></Section>',
        "<Section><Section><Item><ResourceType>17</ResourceType></Item></Section></Section>",
        '<SnapshotsSection><Disk diskId="other"/></SnapshotsSection>',
    ],
)
def test_disks_under_other_names_go_too(hidden: str) -> None:
    made = of_new_vm(OVF.replace("</Content>", hidden + "</Content>"), storage_domain_ids={"s1"})
    assert "other" not in made
    assert not {"17"} & {(element.text or "").strip() for element in markup.parse(made).iter()}
    assert "<Type>disk</Type>" not in made


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'

BAD = {
    "empty": ("", "well-formed"),
    "cut off": (OVF[:400], "well-formed"),
    "no xml": ("{}", "well-formed"),
    "entities": (OVF.replace("<ovf:Envelope", BOMB + "<ovf:Envelope", 1), "document type"),
    "external entity": ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><Envelope/>', "document type"),
    "undefined entity": (OVF.replace("web", "&b;"), "well-formed"),
    "other root": ("<vm/>", "envelope"),
    "no vm": ("<Envelope><References/></Envelope>", "no VM"),
    "too deep": ("<a>" * 200 + "</a>" * 200, "deep"),
    "too large": ("<a>" + " " * (17 << 20) + "</a>", "larger"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_documents(case: str) -> None:
    document, reason = BAD[case]
    with pytest.raises(BadOvf, match=reason):
        of_new_vm(document, storage_domain_ids=())
