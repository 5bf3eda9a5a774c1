# What a server and `special derive` may do. Attach the role to the instance, the task or the service account.
variable "masters" {
  type    = string
  default = "archive"
}

variable "thumbs" {
  type    = string
  default = "thumbs"
}

data "aws_iam_policy_document" "server" {
  statement {
    sid       = "ReadMastersAndRenditions"
    actions   = ["s3:GetObject"]
    resources = ["arn:aws:s3:::${var.masters}/*", "arn:aws:s3:::${var.thumbs}/*"]
  }
  statement {
    # Without this the store answers 403 for what is not there.
    sid       = "TellWhatIsNotThere"
    actions   = ["s3:ListBucket"]
    resources = ["arn:aws:s3:::${var.masters}", "arn:aws:s3:::${var.thumbs}"]
  }
}

data "aws_iam_policy_document" "derive" {
  source_policy_documents = [data.aws_iam_policy_document.server.json]
  statement {
    # A server needs this too where store_on_miss is set.
    sid       = "WriteRenditions"
    actions   = ["s3:PutObject", "s3:DeleteObject"]
    resources = ["arn:aws:s3:::${var.thumbs}/*"]
  }
}

resource "aws_iam_policy" "server" {
  name   = "special-server"
  policy = data.aws_iam_policy_document.server.json
}

resource "aws_iam_policy" "derive" {
  name   = "special-derive"
  policy = data.aws_iam_policy_document.derive.json
}
