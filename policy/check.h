/* Names and wording shared by the stages that read a tree. */
#pragma once

#include "policy/ast.h"

#define CHECK_NAME_MAX 64
#define CHECK_TEXT_MAX 255
#define CHECK_COMMENT_MAX 1000
